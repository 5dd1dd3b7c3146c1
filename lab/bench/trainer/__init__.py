"""What `bench_trainer.py` measures, a part a module."""
