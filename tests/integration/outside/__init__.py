"""Sending through Redis from where no Trio run is: plain threads, scripts, WSGI. Real processes, a real Redis."""
