"""``manage.py runserver``, and the server behind it."""
