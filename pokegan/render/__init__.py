"""Pictures out: single pictures, grids, animations and plots. Knows no network and no config."""
