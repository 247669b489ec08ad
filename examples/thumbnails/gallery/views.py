"""The page, its buttons, and the thumbnails: plain synchronous Django views."""

from uuid import UUID

from django import forms
from django.conf import settings
from django.core.files.base import ContentFile, File
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import UploadedFile
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from trio_channels.exceptions import ChannelFull

from . import pages, work
from .models import Picture
from .samples import TROUBLES, make_sample

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
    """The page, and uploads. The page's pictures come over its WebSocket."""
    form = UploadForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        upload = form.cleaned_data["picture"]
        try:
            take(upload.name, upload)
        except ChannelFull:
            form.add_error("picture", "Too many pictures are waiting. Try again in a minute.")
        else:
            return redirect("index")
    errors = form.errors.get("picture", [])
    if errors and request.headers.get("Accept") == "application/json":
        return JsonResponse({"error": errors[0]}, status=400)
    return render(request, "gallery/index.html", {"errors": errors, "attempts": settings.GALLERY_MAX_DELIVERIES})


@require_POST
def sample(request: HttpRequest) -> HttpResponse:
    """Take a sample in place of an upload."""
    kind = request.POST.get("kind", "")
    if kind not in TROUBLES:
        raise Http404
    name, content = make_sample(kind)
    try:
        take(name, ContentFile(content), TROUBLES[kind])
    except ChannelFull:
        return JsonResponse({"error": "Too many pictures are waiting. Try again in a minute."}, status=400)
    return redirect("index")


def take(name: str, content: File, trouble: str = Picture.Trouble.NONE) -> None:
    """Store a picture, and send messages to a worker and to the pages.

    Raises:
        ChannelFull: too many pictures are waiting; this one is not stored.
    """
    picture = Picture(name=name[:100], trouble=trouble)
    default_storage.save(picture.original, content)
    picture.save()
    try:
        work.order(picture)
    except ChannelFull:
        delete(picture)
        raise
    pages.show(picture)


@require_POST
def again(_request: HttpRequest, picture: UUID) -> HttpResponse:
    """Have the worker try again a picture that it gave up."""
    work.try_again(get_object_or_404(Picture, pk=picture))
    return redirect("index")


@require_POST
def remove(_request: HttpRequest, picture: UUID) -> HttpResponse:
    """Delete a picture, and what is left to do with it."""
    found = get_object_or_404(Picture, pk=picture)
    work.discard(found)
    delete(found)
    pages.forget(str(picture))
    return redirect("index")


def delete(picture: Picture) -> None:
    """Delete a picture with its files."""
    default_storage.delete(picture.original)
    default_storage.delete(picture.thumbnail)
    Picture.objects.filter(pk=picture.pk).delete()


@require_safe
def thumbnail(_request: HttpRequest, picture: UUID) -> FileResponse:
    """A thumbnail; it never changes."""
    found = get_object_or_404(Picture, pk=picture, state=Picture.State.DONE)
    if not default_storage.exists(found.thumbnail):
        raise Http404
    response = FileResponse(default_storage.open(found.thumbnail), content_type="image/webp")
    response["Cache-Control"] = "max-age=31536000, immutable"
    return response
