"""What ``parity inspect`` shows: the terminal's tables and the page."""
