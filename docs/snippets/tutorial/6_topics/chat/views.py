from django.contrib.auth import login
from django.contrib.auth.forms import UserCreationForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from .models import Message
from .rooms import ROOMS


def chat(request: HttpRequest) -> HttpResponse:
    return render(request, "chat/chat.html", {"rooms": ROOMS, "max_length": Message.MAX_LENGTH})


def sign_up(request: HttpRequest) -> HttpResponse:
    form: UserCreationForm = UserCreationForm(request.POST or None)
    if form.is_valid():
        login(request, form.save())
        return redirect("index")
    return render(request, "chat/form.html", {"title": "Sign up", "form": form})
