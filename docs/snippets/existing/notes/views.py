from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_POST
from trio_channels.on_commit import group_send_on_commit


@login_required
def page(request: HttpRequest) -> HttpResponse:
    return render(request, "notes/page.html")


@login_required
@require_POST
def add(request: HttpRequest) -> HttpResponse:
    # A view of yours stores something; everybody hears of it when the transaction has committed.
    group_send_on_commit("notes", {"type": "note", "text": request.POST["text"]})
    return HttpResponse(status=204)
