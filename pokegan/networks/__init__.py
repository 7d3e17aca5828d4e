"""Networks: plain modules with plain arguments. No config objects, no losses."""
