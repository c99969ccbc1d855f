"""Logs in as third-party programs do: `login.py python-pam | pamela | http URL | ldap3`, or at `page URL` of motion-login.

Each line of JSON on standard input is a login: id, service, user, password, and for pamela the function to call. The
answer is a line of JSON with the id and the result: libpam's text, the HTTP status with its redirect, or the page's
outcome. The requests and answers of ldap3 are those of ../ldap/login.js.
"""

import base64
import json
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, "/opt/clients/python/lib")


def by_python_pam(login):
    import pam

    library = pam.PamAuthenticator()
    library.authenticate(login["user"], login["password"], service=login["service"])
    return library.reason.decode() if isinstance(library.reason, bytes) else library.reason


def by_pamela(login):
    import pamela

    call = login.get("call", "authenticate")
    password = [login["password"]] if call == "authenticate" else []
    try:
        getattr(pamela, call)(login["user"], *password, service=login["service"])
    except pamela.PAMError as error:
        return error.message
    return "Success"


class NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def fetch(path, headers, body=None):
    request = urllib.request.Request(f"{sys.argv[2]}/{path}", headers=headers, data=body)
    try:
        return urllib.request.build_opener(NoRedirects).open(request, timeout=60)
    except urllib.error.HTTPError as error:
        return error


def by_http(login):
    pair = base64.b64encode(f"{login['user']}:{login['password']}".encode()).decode()
    with fetch(login["service"], {"Authorization": f"Basic {pair}"}) as answer:
        return f"{answer.status} {answer.headers.get('Location', '')}".strip()


def by_page(login):
    body = json.dumps({"username": login["user"], "password": login["password"]})
    with fetch("login", {"Content-Type": "application/json"}, body.encode()) as answer:
        return json.load(answer)["outcome"]


def by_ldap3(login):
    import ldap3

    escaped = ldap3.utils.conv.escape_filter_chars
    name, password = login["admin"] or login["name"], login["secret"] or login["password"]
    connection = ldap3.Connection(ldap3.Server(login["url"]), name, password)
    refused = lambda said: {"in": False, "said": said, "groups": []}
    try:
        if not connection.bind():
            return refused(connection.result["message"])
        if not login["admin"]:
            return {"in": True, "said": connection.extend.standard.who_am_i(), "groups": []}
        wanted = escaped(login["name"])
        connection.search(login["base"], f"(|(sAMAccountName={wanted})(userPrincipalName={wanted}))")
        if len(connection.entries) != 1:
            return refused(f"{len(connection.entries)} accounts found")
        dn = connection.entries[0].entry_dn
        member = f"(member={escaped(dn)})"
        found = list(connection.extend.standard.paged_search(login["base"], member, attributes=["cn"], paged_size=50))
        if not connection.rebind(dn, login["password"]):
            return refused(connection.result["message"])
        return {"in": True, "said": "", "groups": [str(group["attributes"]["cn"]) for group in found]}
    except ldap3.core.exceptions.LDAPExceptionError as error:
        return refused(str(error))
    finally:
        connection.unbind()


ways = {"python-pam": by_python_pam, "pamela": by_pamela, "http": by_http, "page": by_page, "ldap3": by_ldap3}
log_in = ways[sys.argv[1]]


def answer(login):
    try:
        said = log_in(login)
    except Exception as error:  # the suite must see every error
        said = repr(error)
    told = said if isinstance(said, dict) else {"said": said}
    print(json.dumps({"id": login["id"], **told}), flush=True)


with ThreadPoolExecutor(64) as threads:
    for line in sys.stdin:
        threads.submit(answer, json.loads(line))
