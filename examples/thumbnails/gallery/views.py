"""The page with its upload form, and the thumbnails: plain synchronous Django views."""

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

#: The largest size of an upload, in bytes.
LARGEST = 10 * 2**20


class UploadForm(forms.Form):
    picture = forms.FileField(max_length=100)

    def clean_picture(self) -> UploadedFile:
        """Check the size. The worker finds out whether the file is a picture."""
        upload: UploadedFile = self.cleaned_data["picture"]
        if upload.size > LARGEST:
            raise forms.ValidationError(f"A picture can have at most {LARGEST // 2**20} MB.")
        return upload


def index(request: HttpRequest) -> HttpResponse:
    """The page. Its pictures come over its WebSocket."""
    form = UploadForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        try:
            take(form.cleaned_data["picture"])
        except ChannelFull:
            form.add_error("picture", "Too many pictures are waiting. Try again in a minute.")
        else:
            return redirect("index")
    return render(request, "gallery/index.html", {"form": form})


def take(upload: UploadedFile) -> None:
    """Store a picture, and send messages to a worker and to the pages.

    Raises:
        ChannelFull: too many pictures are waiting; this one is not stored.
    """
    picture = Picture(name=upload.name[:100])
    default_storage.save(picture.original, upload)
    picture.save()
    layer = get_channel_layer()
    try:
        # To one worker.
        async_to_sync(layer.send)("thumbnails", {"type": "picture.uploaded", "id": str(picture.pk)})
    except ChannelFull:
        default_storage.delete(picture.original)
        picture.delete()
        raise
    # To every open page. The worker's result may come first, so a page never goes back to "waiting".
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
