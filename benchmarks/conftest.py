"""
Lets the tests beside it import the benchmark's modules the way `python benchmarks/compare.py` does.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
