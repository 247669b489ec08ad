"""An API for users: views with tokens, permissions and a throttle; beside them an async Django view."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.http import HttpRequest, JsonResponse
from django.urls import include, path
from rest_framework import permissions, routers, serializers, throttling, viewsets
from rest_framework.authtoken.models import Token
from rest_framework.authtoken.views import obtain_auth_token
from rest_framework.decorators import api_view, permission_classes, throttle_classes
from rest_framework.request import Request
from rest_framework.response import Response

from .common import meet_in_thread


class ThreeAMinute(throttling.UserRateThrottle):
    rate = "3/minute"


@api_view()
@permission_classes([permissions.IsAuthenticated])
def me(request: Request) -> Response:
    before = request.user.username
    meet_in_thread(request)
    return Response([before, request.user.username])


@api_view()
@permission_classes([permissions.IsAuthenticated])
@throttle_classes([ThreeAMinute])
def seldom(_request: Request) -> Response:
    return Response("ok")


class UserSerializer(serializers.ModelSerializer):
    class Meta:
        model = User
        fields = ("username", "email")


class Users(viewsets.ModelViewSet):
    queryset = User.objects.order_by("username")
    serializer_class = UserSerializer
    permission_classes = (permissions.IsAuthenticatedOrReadOnly,)


async def beside(_request: HttpRequest) -> JsonResponse:
    return JsonResponse({"tokens": await Token.objects.acount()})


router = routers.DefaultRouter()
router.register("users", Users)
urlpatterns = [
    path("token/", obtain_auth_token),
    path("me/", me),
    path("seldom/", seldom),
    path("beside/", beside),
    path("", include(router.urls)),
]
