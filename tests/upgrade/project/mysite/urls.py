from django.urls import path

from chat.views import say

urlpatterns = [path("say/<str:room>/", say)]
