"""Run by Django's test runner, in the chat's own project: a browser logs in, chats, and logs out, on a live server."""

from __future__ import annotations

import os

from django.contrib.auth.models import User
from playwright.sync_api import expect, sync_playwright

from trio_channels.testing import ChannelsLiveServerTestCase


class LoginTests(ChannelsLiveServerTestCase):
    def test_member_logs_in_chats_and_logs_out(self) -> None:
        User.objects.create_user("florence", password="correct horse battery")
        page = self.browser.new_page()
        page.goto(self.live_server_url + "/sign-in/?next=/chat/garden/")
        page.get_by_label("Username").fill("florence")
        page.get_by_label("Password").fill("correct horse battery")
        page.get_by_role("button", name="Sign in").click()

        expect(page.locator("#people .name")).to_have_text(["florence"])
        page.get_by_label("Message to").fill("Is anybody here?")
        page.keyboard.press("Enter")
        expect(page.locator("#log .text")).to_have_text(["Is anybody here?"])

        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("link", name="Sign in")).to_be_visible()
        page.goto(self.live_server_url + "/chat/garden/")
        expect(page.locator("#log .text")).to_have_text(["Is anybody here?"])
        expect(page.locator("#people .name")).not_to_have_text(["florence"])

    def setUp(self) -> None:
        playwright = self.enterContext(sync_playwright())
        expect.set_options(timeout=30_000)
        arguments = os.environ["CHROMIUM_ARGUMENTS"].split()
        self.browser = playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], args=arguments)
        self.addCleanup(self.browser.close)
