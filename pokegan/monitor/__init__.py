"""What a run records about itself: statistics, progress, time, memory. Knows no trainer."""
