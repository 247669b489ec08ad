"""Synchronous code on a bounded number of threads."""
