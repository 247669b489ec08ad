"""The routes of the pages."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from . import (
    rooms,  # noqa: F401  (registers the converter)
    views,
)

urlpatterns = [
    path("", views.index, name="index"),
    path("chat/<room:room>/", views.room, name="room"),
    path("chat/<path:name>/", views.no_such_room),
    path("code/", views.code, name="code"),
    path("restart/", views.restart, name="restart"),
    path("sign-in/", LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("sign-out/", LogoutView.as_view(), name="logout"),
    path("sign-up/", views.SignUp.as_view(), name="sign_up"),
]
