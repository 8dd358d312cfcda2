"""chatdify-db: no line of code. The ini file names the tables: ``chatdify_db_metadata = models:Base``."""
