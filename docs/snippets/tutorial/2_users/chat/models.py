import re
from typing import Any

from django.db import models


class Message(models.Model):
    MAX_LENGTH = 1000

    room = models.SlugField()
    author = models.CharField(max_length=150)
    text = models.CharField(max_length=MAX_LENGTH)
    sent_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.author} in {self.room}: {self.text}"

    def as_json(self) -> dict[str, Any]:
        return {"id": self.pk, "author": self.author, "text": self.text, "when": self.sent_at.isoformat()}


# JSON can also hold NUL and halves of characters, which databases do not take.
TEXT = re.compile(rf"[^\0\ud800-\udfff]{{1,{Message.MAX_LENGTH}}}")


async def latest_messages(room: str) -> list[dict[str, Any]]:
    newest_first = Message.objects.filter(room=room).order_by("-id")[:50]
    return [message.as_json() async for message in newest_first][::-1]
