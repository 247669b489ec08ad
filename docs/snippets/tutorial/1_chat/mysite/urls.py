from chat.views import room
from django.urls import path

urlpatterns = [path("chat/<slug:room>/", room)]
