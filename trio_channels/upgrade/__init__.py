"""Rewrites a project written for Channels: ``python -m trio_channels.upgrade PATH``; see the how-to guide to migrate.

names      the tables: which name becomes which, and which needs a decision
files      finds the files, shows the differences, writes them
source     one file: parses it, applies the rewriters, gathers the decisions
qualified  the names that come from imports
calls      calls of asyncio and asgiref that have one plain equivalent
queues     ``asyncio.Queue`` that becomes the two ends of a memory channel
pytest_marks  marks and fixtures of pytest-asyncio
settings   ``INSTALLED_APPS`` and dotted paths
imports    imports, and the names that are used through them
decisions  the places that a person must look at
"""
