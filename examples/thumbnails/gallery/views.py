"""The page, what it posts to, and the thumbnails: plain synchronous Django views."""

from uuid import UUID

from django import forms
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import UploadedFile
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_safe

from trio_channels.exceptions import ChannelFull
from trio_channels.layers import get_channel_layer
from trio_channels.sync import async_to_sync

from .consumers import PAGES
from .models import Picture

#: Bytes of an upload.
LARGEST = 10 * 2**20


class UploadForm(forms.Form):
    picture = forms.FileField(max_length=100)

    def clean_picture(self) -> UploadedFile:
        """Small enough? Whether it is a picture is the worker's to find out."""
        upload: UploadedFile = self.cleaned_data["picture"]
        if upload.size > LARGEST:
            raise forms.ValidationError(f"A picture can have {LARGEST // 2**20} MB at the most.")
        return upload


def index(request: HttpRequest) -> HttpResponse:
    """The page. The pictures come over its WebSocket."""
    form = UploadForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        try:
            take(form.cleaned_data["picture"])
        except ChannelFull:
            form.add_error("picture", "Too many pictures wait already. Try again in a minute.")
        else:
            return redirect("index")
    return render(request, "gallery/index.html", {"form": form})


def take(upload: UploadedFile) -> None:
    """Store a picture, and tell a worker and the pages.

    Raises:
        ChannelFull: too many wait already; this one is not kept.
    """
    picture = Picture(name=upload.name[:100])
    default_storage.save(picture.original, upload)
    picture.save()
    layer = get_channel_layer()
    try:
        # To one worker, whichever is free.
        async_to_sync(layer.send)("thumbnails", {"type": "picture.uploaded", "id": str(picture.pk)})
    except ChannelFull:
        default_storage.delete(picture.original)
        picture.delete()
        raise
    # To every open page. It may be told the result before this: a page does not go back to "waiting".
    async_to_sync(layer.group_send)(PAGES, {"type": "picture.changed", "picture": picture.as_json()})


@require_safe
def thumbnail(_request: HttpRequest, picture: UUID) -> FileResponse:
    """A thumbnail; it never changes."""
    found = get_object_or_404(Picture, pk=picture, state=Picture.State.DONE)
    if not default_storage.exists(found.thumbnail):
        raise Http404
    response = FileResponse(default_storage.open(found.thumbnail), content_type="image/webp")
    response["Cache-Control"] = "max-age=31536000, immutable"
    return response
