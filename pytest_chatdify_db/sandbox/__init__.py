"""The sandbox: a PostgreSQL server to its clients, one session of a real server behind it.

Every client's transaction becomes savepoints of one open transaction, so that one ROLLBACK undoes them all. The
thinking is done by modules without I/O (``sql``, ``transactions``, ``settings``, ``client``, ``backend``, ``core``);
``host`` moves the bytes, ``__main__`` is the process, ``handle`` is what a test run holds of it. Standard library only.
"""
