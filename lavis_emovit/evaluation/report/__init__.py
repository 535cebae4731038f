"""The report of runs and suites: `page.py` writes it; the others read folders, gather what is shown, and draw."""
