# French, in the polite form (vous). A space before a colon or a semicolon is U+00A0.

logon_hours = Votre compte ne permet pas de se connecter à cette heure.
workstation = Votre compte ne permet pas de se connecter depuis cet ordinateur.
password_expired = Votre mot de passe a expiré et doit être changé.
must_change = Vous devez changer votre mot de passe avant de vous connecter.
disabled = Votre compte est désactivé.
account_expired = Votre compte a expiré.
locked_out = Votre compte est verrouillé. Réessayez plus tard ou adressez-vous à votre administrateur.
not_allowed = Votre compte ne permet pas d'utiliser ce service.
denied = Votre compte ne permet pas d'utiliser ce service.
password_refused = Votre nouveau mot de passe n'a pas été accepté.
change_forbidden = Vous n'avez pas le droit de changer votre mot de passe.
change_unknown = Il n'est pas certain que votre mot de passe ait été changé. Essayez de vous connecter avec le nouveau.
session_denied = Une session à votre nom est déjà ouverte ailleurs.
session_store = Votre session ne peut pas être enregistrée. Réessayez dans un instant.
unavailable = Le service de connexion ne parvient pas à joindre Active Directory. Réessayez dans un instant.

expires_now = Votre mot de passe expire dans moins d'une heure.
expires_in_hours = { $count ->
    [one] Votre mot de passe expire dans { $count } heure.
   *[other] Votre mot de passe expire dans { $count } heures.
}
expires_in_days = { $count ->
    [one] Votre mot de passe expire dans { $count } jour.
   *[other] Votre mot de passe expire dans { $count } jours.
}

new_same = Votre nouveau mot de passe est identique à l'actuel.
new_empty = Votre nouveau mot de passe est vide.
new_too_long = Votre nouveau mot de passe est trop long.
new_characters = Votre nouveau mot de passe contient des caractères qu'aucun mot de passe ne peut avoir.

too_young = Votre mot de passe a été changé il y a peu de temps ; il ne peut pas encore être changé de nouveau.
too_young_days = { $count ->
    [one] Votre mot de passe a été changé il y a moins de { $count } jour ; il ne peut pas encore être changé de nouveau.
   *[other] Votre mot de passe a été changé il y a moins de { $count } jours ; il ne peut pas encore être changé de nouveau.
}
too_young_hours = { $count ->
    [one] Votre mot de passe a été changé il y a moins de { $count } heure ; il ne peut pas encore être changé de nouveau.
   *[other] Votre mot de passe a été changé il y a moins de { $count } heures ; il ne peut pas encore être changé de nouveau.
}
too_young_minutes = { $count ->
    [one] Votre mot de passe a été changé il y a moins de { $count } minute ; il ne peut pas encore être changé de nouveau.
   *[other] Votre mot de passe a été changé il y a moins de { $count } minutes ; il ne peut pas encore être changé de nouveau.
}
too_young_seconds = { $count ->
    [one] Votre mot de passe a été changé il y a moins de { $count } seconde ; il ne peut pas encore être changé de nouveau.
   *[other] Votre mot de passe a été changé il y a moins de { $count } secondes ; il ne peut pas encore être changé de nouveau.
}
too_short = Votre nouveau mot de passe est trop court.
too_short_for = { $count ->
    [one] Votre nouveau mot de passe doit comporter au moins { $count } caractère.
   *[other] Votre nouveau mot de passe doit comporter au moins { $count } caractères.
}
kinds = Votre nouveau mot de passe doit comporter des caractères de trois de ces types : majuscules, minuscules, chiffres, autres.
name = Votre nouveau mot de passe ne peut contenir ni votre nom d'utilisateur ni une partie de votre nom.
complexity = Votre nouveau mot de passe est trop facile à deviner.
history = Votre nouveau mot de passe ne peut pas être un mot de passe que vous avez déjà eu.
history_of = Votre nouveau mot de passe ne peut pas être l'un de vos { $count } derniers mots de passe.
history_or_list = Votre nouveau mot de passe est un mot de passe que vous avez déjà eu, ou est trop facile à deviner.
history_or_list_of = Votre nouveau mot de passe est l'un de vos { $count } derniers mots de passe, ou est trop facile à deviner.
age_or_right = Vous n'avez pas le droit de changer votre mot de passe, ou pas encore.
