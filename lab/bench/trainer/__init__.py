"""The benchmark behind `bench_trainer.py`, with a module for each part."""
