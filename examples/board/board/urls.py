"""The pages."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from trio_channels.event_stream import EventStream

from . import views

urlpatterns = [
    path("", views.index, name="index"),
    path("sign-in/", LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("sign-out/", LogoutView.as_view(), name="logout"),
    path("boards/<slug:slug>/", views.board, name="board"),
    path("boards/<slug:slug>/activity/", views.activity, name="activity"),
    # The address of a stream is signed by the page, which has looked at the rights. Each change comes as HTML.
    path(
        "events/",
        EventStream.as_view(signed=True, templates={"change": "board/change.html"}),
        name="trio_stream",
    ),
]
