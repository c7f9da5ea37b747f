"""Parts of `bench.py`: what is measured, on what, by whom, against which floor, and the table of it."""
