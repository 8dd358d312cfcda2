"""pytest-django: no line of code. The ini file names the settings, and the suite is written on Django's ORM.

``db`` wraps a test in a transaction, which the async ORM cannot join; so an async test takes ``transactional_db``,
which flushes all tables afterwards.
"""
