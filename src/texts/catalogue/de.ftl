# German, in the polite form (Sie).

logon_hours = Mit Ihrem Konto können Sie sich zu dieser Zeit nicht anmelden.
workstation = Mit Ihrem Konto können Sie sich an diesem Computer nicht anmelden.
password_expired = Ihr Kennwort ist abgelaufen und muss geändert werden.
must_change = Sie müssen Ihr Kennwort ändern, bevor Sie sich anmelden können.
disabled = Ihr Konto ist deaktiviert.
account_expired = Ihr Konto ist abgelaufen.
locked_out = Ihr Konto ist gesperrt. Versuchen Sie es später erneut oder wenden Sie sich an Ihren Administrator.
not_allowed = Mit Ihrem Konto können Sie diesen Dienst nicht nutzen.
denied = Mit Ihrem Konto können Sie diesen Dienst nicht nutzen.
password_refused = Ihr neues Kennwort wurde nicht angenommen.
change_forbidden = Sie dürfen Ihr Kennwort nicht ändern.
change_unknown = Es ist nicht sicher, ob Ihr Kennwort geändert wurde. Versuchen Sie, sich mit dem neuen anzumelden.
session_denied = Sie sind bereits an anderer Stelle angemeldet.
session_store = Ihre Sitzung kann nicht registriert werden. Versuchen Sie es gleich noch einmal.
unavailable = Der Anmeldedienst kann Active Directory nicht erreichen. Versuchen Sie es gleich noch einmal.

expires_now = Ihr Kennwort läuft innerhalb der nächsten Stunde ab.
expires_in_hours = { $count ->
    [one] Ihr Kennwort läuft in { $count } Stunde ab.
   *[other] Ihr Kennwort läuft in { $count } Stunden ab.
}
expires_in_days = { $count ->
    [one] Ihr Kennwort läuft in { $count } Tag ab.
   *[other] Ihr Kennwort läuft in { $count } Tagen ab.
}

new_same = Ihr neues Kennwort ist dasselbe wie Ihr bisheriges.
new_empty = Ihr neues Kennwort ist leer.
new_too_long = Ihr neues Kennwort ist zu lang.
new_characters = Ihr neues Kennwort enthält Zeichen, die kein Kennwort haben kann.

too_young = Ihr Kennwort wurde erst vor Kurzem geändert; es darf noch nicht wieder geändert werden.
too_young_days = { $count ->
    [one] Ihr Kennwort wurde vor weniger als { $count } Tag geändert; es darf noch nicht wieder geändert werden.
   *[other] Ihr Kennwort wurde vor weniger als { $count } Tagen geändert; es darf noch nicht wieder geändert werden.
}
too_young_hours = { $count ->
    [one] Ihr Kennwort wurde vor weniger als { $count } Stunde geändert; es darf noch nicht wieder geändert werden.
   *[other] Ihr Kennwort wurde vor weniger als { $count } Stunden geändert; es darf noch nicht wieder geändert werden.
}
too_young_minutes = { $count ->
    [one] Ihr Kennwort wurde vor weniger als { $count } Minute geändert; es darf noch nicht wieder geändert werden.
   *[other] Ihr Kennwort wurde vor weniger als { $count } Minuten geändert; es darf noch nicht wieder geändert werden.
}
too_young_seconds = { $count ->
    [one] Ihr Kennwort wurde vor weniger als { $count } Sekunde geändert; es darf noch nicht wieder geändert werden.
   *[other] Ihr Kennwort wurde vor weniger als { $count } Sekunden geändert; es darf noch nicht wieder geändert werden.
}
too_short = Ihr neues Kennwort ist zu kurz.
too_short_for = Ihr neues Kennwort muss mindestens { $count } Zeichen haben.
kinds = Ihr neues Kennwort muss Zeichen aus drei dieser Gruppen enthalten: Großbuchstaben, Kleinbuchstaben, Ziffern, andere.
name = Ihr neues Kennwort darf weder Ihren Anmeldenamen noch einen Teil Ihres Namens enthalten.
complexity = Ihr neues Kennwort ist zu leicht zu erraten.
history = Ihr neues Kennwort darf keines sein, das Sie schon einmal hatten.
history_of = Ihr neues Kennwort darf keines Ihrer letzten { $count } Kennwörter sein.
history_or_list = Ihr neues Kennwort ist eines, das Sie schon einmal hatten, oder zu leicht zu erraten.
history_or_list_of = Ihr neues Kennwort ist eines Ihrer letzten { $count } Kennwörter oder zu leicht zu erraten.
age_or_right = Sie dürfen Ihr Kennwort nicht oder noch nicht ändern.
