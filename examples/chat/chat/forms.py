"""The form on the front page."""

from typing import Any

from django import forms
from django.contrib.auth import get_user_model
from django.utils.text import slugify

from . import rooms

VISITOR_NAME_LENGTH = 30


class EnterForm(forms.Form):
    """A room, and the visitor's name. Members are not asked for a name."""

    room = forms.CharField(label="Room", max_length=80)
    name = forms.CharField(label="Your name", max_length=VISITOR_NAME_LENGTH)

    def __init__(self, *args: Any, signed_in: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["room"].widget.attrs |= {"placeholder": "lobby", "autocapitalize": "none", "list": "room-names"}
        self.fields["name"].widget.attrs |= {"autocomplete": "nickname"}
        if signed_in:
            del self.fields["name"]

    def clean_room(self) -> str:
        """Make the name of a room from the text: ``Board games!`` becomes ``board-games``."""
        room = slugify(self.cleaned_data["room"])[: rooms.MAX_LENGTH].strip("-")
        if not room:
            raise forms.ValidationError(rooms.RULE)
        return room

    def clean_name(self) -> str:
        """Refuse names with invisible characters, and names of members."""
        name = " ".join(self.cleaned_data["name"].split())
        if not name.isprintable():
            raise forms.ValidationError("This name holds characters that cannot be seen.")
        if get_user_model().objects.filter(username__iexact=name).exists():
            raise forms.ValidationError("This is the name of a member. Is it yours? Then sign in.")
        return name
