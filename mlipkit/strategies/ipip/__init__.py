"""IPIP: a small fast student, pretrained again and again on frames that a universal teacher and it itself have made."""
