"""The pages."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from . import views

urlpatterns = [
    path("", views.index, name="index"),
    path("sign-in/", LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("sign-out/", LogoutView.as_view(), name="logout"),
    path("boards/<slug:slug>/", views.board, name="board"),
    path("boards/<slug:slug>/activity/", views.activity, name="activity"),
    path("events/", views.Activity.as_view(), name="trio_stream"),
]
