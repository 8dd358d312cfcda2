"""The errors in a test project: a wrong option, marker, schema, connection or use of a fixture.

ChatdifyDBError
+-- OptionError             an option has a value that is not valid
+-- MarkerError             a test's marker has arguments it does not take
+-- SchemaError             the tables cannot be found, or cannot be created
+-- EarlyUse                the database was used before it could be running
+-- RedirectError           the application would use another database than the tests' one
+-- SandboxGone             the sandbox has ended or does not answer
+-- IsolationLost           a test has left the sandbox's transaction
+-- FixtureError            a fixture was asked for where it cannot work
    +-- LateFixture         a fixture's rows would have to live longer than rows that are there already

Each family has a module: what was asked for (`options`), what the database is made of (`schema`), when and where the
application connects (`connections`), and `fixtures`.
"""
