"""Synchronous code on bounded worker threads."""
