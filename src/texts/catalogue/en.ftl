# The texts that users see, in English: the reference for the other languages.
#
# Each language has every message, with the same variables. A message reveals no more than the English one.

## Outcomes of a login, named as in the table of src/verdict.rs

logon_hours = Your account may not log in at this time.
workstation = Your account may not log in from this computer.
password_expired = Your password has expired and must be changed.
must_change = Your password must be changed before you can log in.
disabled = Your account is disabled.
account_expired = Your account has expired.
locked_out = Your account is locked. Try again later or ask your administrator.
not_allowed = Your account may not use this service.
denied = Your account may not use this service.
password_refused = Your new password was not accepted.
change_forbidden = You may not change your password.
change_unknown = It is not certain whether your password was changed. Try to log in with the new one.
session_denied = You are already logged in elsewhere.
session_store = Your session cannot be registered. Try again in a moment.
unavailable = The login service cannot reach Active Directory. Try again in a moment.

## The password expires soon

expires_now = Your password expires within the hour.
expires_in_hours = { $count ->
    [one] Your password expires in { $count } hour.
   *[other] Your password expires in { $count } hours.
}
expires_in_days = { $count ->
    [one] Your password expires in { $count } day.
   *[other] Your password expires in { $count } days.
}

## The new password, which AD would never accept

new_same = Your new password is the same as your current one.
new_empty = Your new password is empty.
new_too_long = Your new password is too long.
new_characters = Your new password contains characters that are not allowed in a password.

## The new password, and the rule that it violates

too_young = Your password was changed a short time ago; it may not be changed again yet.
too_young_days = { $count ->
    [one] Your password was changed less than { $count } day ago; it may not be changed again yet.
   *[other] Your password was changed less than { $count } days ago; it may not be changed again yet.
}
too_young_hours = { $count ->
    [one] Your password was changed less than { $count } hour ago; it may not be changed again yet.
   *[other] Your password was changed less than { $count } hours ago; it may not be changed again yet.
}
too_young_minutes = { $count ->
    [one] Your password was changed less than { $count } minute ago; it may not be changed again yet.
   *[other] Your password was changed less than { $count } minutes ago; it may not be changed again yet.
}
too_young_seconds = { $count ->
    [one] Your password was changed less than { $count } second ago; it may not be changed again yet.
   *[other] Your password was changed less than { $count } seconds ago; it may not be changed again yet.
}
too_short = Your new password is too short.
too_short_for = { $count ->
    [one] Your new password must have at least { $count } character.
   *[other] Your new password must have at least { $count } characters.
}
kinds = Your new password must contain three of these kinds of characters: uppercase letters, lowercase letters, digits, others.
name = Your new password must not contain your login name or a part of your name.
complexity = Your new password is too easy to guess.
history = Your new password must not be one that you had before.
history_of = Your new password must not be one of your last { $count } passwords.
history_or_list = Your new password is one that you had before, or too easy to guess.
history_or_list_of = Your new password is one of your last { $count } passwords, or too easy to guess.
age_or_right = You may not change your password, or not yet.
