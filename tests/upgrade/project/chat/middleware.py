import channels.db
from channels.middleware import BaseMiddleware

from .models import Message


class CountMiddleware(BaseMiddleware):
    async def __call__(self, scope, receive, send):
        scope["messages"] = await channels.db.database_sync_to_async(Message.objects.count)()
        return await super().__call__(scope, receive, send)
