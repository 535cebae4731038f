"""Reports of runs and suites: `folder.py` reads a folder, `entry.py` arranges its report, `page.py` writes it."""
