"""What is optimised. Knows networks as callables; no optimiser, device, file or rank."""
