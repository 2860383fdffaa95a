"""Alembic's environment and the revisions of dialin's tables; `dialin.store.migrate` runs them.

To change a table: change it in `store/tables.py`, add a revision to `versions/`, and add its name to `schema.VERSIONS`.
A test compares the tables that the revisions lead to with `tables.py`.
"""
