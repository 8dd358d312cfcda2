"""A PostgreSQL server seen from outside: its address, its wire protocol, its log-in, one plain connection.

Standard library only. Knows nothing of pytest, SQLAlchemy or the sandbox.
"""
