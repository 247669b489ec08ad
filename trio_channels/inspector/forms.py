"""The form of an act: checked when it is asked for, and again when it is confirmed."""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from .._asgi.close_codes import may_be_sent
from ..closing import CLOSED
from ..exceptions import MessageNotEncodable
from ..layers import DEFAULT_CHANNEL_LAYER, channel_layers
from ..layers.message import encode
from ..layers.names import is_channel_name, is_group_name, is_public
from .acting import ACTS, Act

#: Most bytes of a close reason; most dead letters that are retried one by one.
_LONGEST_REASON, _MOST_IDS = 123, 100


class ActForm(forms.Form):
    """An act and its details."""

    kind = forms.ChoiceField(choices=list(ACTS.items()), widget=forms.HiddenInput)
    layer = forms.CharField(required=False, widget=forms.HiddenInput)
    target = forms.CharField(max_length=200, widget=forms.HiddenInput)
    ids = forms.CharField(required=False, max_length=4000, widget=forms.HiddenInput)
    message = forms.CharField(
        required=False,
        widget=forms.Textarea(attrs={"rows": 6, "spellcheck": "false"}),
        help_text='JSON: an object whose type names the handler, such as {"type": "chat.message"}.',
    )
    code = forms.IntegerField(required=False, label="Close code")
    reason = forms.CharField(required=False, label="Close reason", help_text="The client sees it.")

    @property
    def shown(self) -> list[forms.BoundField]:
        """The fields that the confirmation shows."""
        kind = str(self.data.get("kind", ""))
        names = {"send": ("message",), "close": ("code", "reason")}.get(kind.partition("_")[0], ())
        return [self[name] for name in names]

    @property
    def hidden(self) -> list[forms.BoundField]:
        """The fields that it only passes on."""
        return self.hidden_fields()

    def clean_layer(self) -> str:
        """The alias of a layer; whether there is one, only some acts want to know."""
        return self.cleaned_data["layer"] or DEFAULT_CHANNEL_LAYER

    def clean_code(self) -> int:
        """A close code that may be sent."""
        code = self.cleaned_data["code"]
        code = CLOSED if code is None else code
        if not may_be_sent(code):
            raise ValidationError("Expected a close code that may be sent, such as 4001.")
        return int(code)

    def clean_reason(self) -> str:
        """A reason that fits into a close frame."""
        reason: str = self.cleaned_data["reason"]
        if len(reason.encode("utf-8", "surrogatepass")) > _LONGEST_REASON:
            raise ValidationError(f"Expected at most {_LONGEST_REASON} bytes.")
        return reason

    def clean_ids(self) -> list[str]:
        """The ids of dead letters."""
        ids = str(self.cleaned_data["ids"]).split()
        if len(ids) > _MOST_IDS or not all(is_group_name(one) for one in ids):
            raise ValidationError(f"Expected at most {_MOST_IDS} ids of dead letters.")
        return ids

    def clean(self) -> dict[str, Any]:
        """The target and the message fit the act."""
        cleaned = super().clean() or {}
        kind, target = cleaned.get("kind"), cleaned.get("target", "")
        named = is_group_name(target) and is_public(target)
        allowed = {
            "send_group": named,
            "send_channel": is_channel_name(target),
            "close_channel": is_channel_name(target),
            "retry": named,
        }
        if target and not allowed.get(str(kind), True):
            self.add_error(None, "Expected the name of a group or channel.")
        if kind in ("send_group", "send_channel", "retry") and cleaned["layer"] not in channel_layers:
            self.add_error(None, "CHANNEL_LAYERS has no such entry.")
        if kind in ("send_group", "send_channel"):
            try:
                cleaned["message"] = _message(cleaned.get("message", ""))
            except ValidationError as error:
                self.add_error("message", error)
        return cleaned

    def act(self) -> Act:
        """The act of a valid form."""
        cleaned = self.cleaned_data
        message = cleaned["message"] if isinstance(cleaned["message"], dict) else {}
        return Act(
            cleaned["kind"],
            cleaned["target"],
            cleaned["layer"],
            message,
            cleaned["code"],
            cleaned["reason"],
            cleaned["ids"],
        )


def _message(text: str) -> dict[str, Any]:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValidationError(f"Expected JSON: {error}") from error
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise ValidationError('Expected an object with a type, such as {"type": "chat.message"}.')
    try:
        encode(message)
    except MessageNotEncodable as error:
        raise ValidationError(str(error)) from error
    return message
