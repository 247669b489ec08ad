from chat import views
from django.contrib.auth.views import LoginView, LogoutView
from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import path
from django.views.generic import RedirectView

urlpatterns = [
    path("", RedirectView.as_view(url="/chat/lobby/"), name="index"),
    path("chat/<slug:room>/", views.room, name="room"),
    path("sign-up/", views.sign_up, name="sign_up"),
    path("log-in/", LoginView.as_view(template_name="chat/form.html", extra_context={"title": "Log in"}), name="login"),
    path("log-out/", LogoutView.as_view(), name="logout"),
    *staticfiles_urlpatterns(),  # with DEBUG only
]
