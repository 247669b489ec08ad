"""The admin. Whatever it changes shows at once on open boards."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from . import changes
from .models import Board, Card, Column, Member


class ColumnInline(admin.TabularInline):
    model = Column
    extra = 0


class MemberInline(admin.TabularInline):
    model = Member
    extra = 0


@admin.register(Board)
class BoardAdmin(admin.ModelAdmin):
    inlines = [ColumnInline, MemberInline]

    # The address of a board stays: open pages have joined its topic.

    def get_readonly_fields(self, request: HttpRequest, obj: Board | None = None) -> list[str]:
        return ["slug"] if obj else []

    def get_prepopulated_fields(self, request: HttpRequest, obj: Board | None = None) -> dict[str, list[str]]:
        return {} if obj else {"slug": ["name"]}

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        changes.reshape(request.user, form.instance)


@admin.register(Card)
class CardAdmin(admin.ModelAdmin):
    """Cards are added and moved on the board; they are archived, not deleted."""

    list_display = ["title", "label", "column", "board", "archived"]
    list_filter = ["archived", "label", "column__board"]
    search_fields = ["title"]
    fields = ["title", "label", "column", "archived"]
    readonly_fields = ["column", "archived"]
    actions = ["archive", "restore"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Card]:
        return super().get_queryset(request).select_related("column__board")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Card | None = None) -> bool:
        return False

    @admin.display(ordering="column__board")
    def board(self, card: Card) -> Board:
        return card.column.board

    def save_model(self, request: HttpRequest, obj: Card, form: Any, change: bool) -> None:
        changes.edit(request.user, obj)

    @admin.action(description="Archive the chosen cards", permissions=["change"])
    def archive(self, request: HttpRequest, queryset: QuerySet[Card]) -> None:
        count = changes.archive(request.user, queryset)
        self.message_user(request, f"Archived: {count}. They are gone from open boards.", messages.SUCCESS)

    @admin.action(description="Put the chosen cards back", permissions=["change"])
    def restore(self, request: HttpRequest, queryset: QuerySet[Card]) -> None:
        count = changes.archive(request.user, queryset, archived=False)
        self.message_user(request, f"Back on their boards: {count}.", messages.SUCCESS)
