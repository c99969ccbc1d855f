# Italian, in the polite form (Lei).

logon_hours = Il Suo account non può accedere in questo orario.
workstation = Il Suo account non può accedere da questo computer.
password_expired = La Sua password è scaduta e deve essere cambiata.
must_change = Prima di accedere deve cambiare la Sua password.
disabled = Il Suo account è disabilitato.
account_expired = Il Suo account è scaduto.
locked_out = Il Suo account è bloccato. Riprovi più tardi o si rivolga all'amministratore.
not_allowed = Il Suo account non può usare questo servizio.
denied = Il Suo account non può usare questo servizio.
password_refused = La nuova password non è stata accettata.
change_forbidden = Non Le è consentito cambiare la password.
change_unknown = Non è certo che la Sua password sia stata cambiata. Provi ad accedere con quella nuova.
session_denied = Ha già effettuato l'accesso altrove.
session_store = Non è possibile registrare la Sua sessione. Riprovi tra poco.
unavailable = Il servizio di accesso non riesce a raggiungere Active Directory. Riprovi tra poco.

expires_now = La Sua password scade entro un'ora.
expires_in_hours = { $count ->
    [one] La Sua password scade tra { $count } ora.
   *[other] La Sua password scade tra { $count } ore.
}
expires_in_days = { $count ->
    [one] La Sua password scade tra { $count } giorno.
   *[other] La Sua password scade tra { $count } giorni.
}

new_same = La nuova password è uguale a quella attuale.
new_empty = La nuova password è vuota.
new_too_long = La nuova password è troppo lunga.
new_characters = La nuova password contiene caratteri che nessuna password può avere.

too_young = La Sua password è stata cambiata da poco; non può ancora essere cambiata di nuovo.
too_young_days = { $count ->
    [one] La Sua password è stata cambiata meno di { $count } giorno fa; non può ancora essere cambiata di nuovo.
   *[other] La Sua password è stata cambiata meno di { $count } giorni fa; non può ancora essere cambiata di nuovo.
}
too_young_hours = { $count ->
    [one] La Sua password è stata cambiata meno di { $count } ora fa; non può ancora essere cambiata di nuovo.
   *[other] La Sua password è stata cambiata meno di { $count } ore fa; non può ancora essere cambiata di nuovo.
}
too_young_minutes = { $count ->
    [one] La Sua password è stata cambiata meno di { $count } minuto fa; non può ancora essere cambiata di nuovo.
   *[other] La Sua password è stata cambiata meno di { $count } minuti fa; non può ancora essere cambiata di nuovo.
}
too_young_seconds = { $count ->
    [one] La Sua password è stata cambiata meno di { $count } secondo fa; non può ancora essere cambiata di nuovo.
   *[other] La Sua password è stata cambiata meno di { $count } secondi fa; non può ancora essere cambiata di nuovo.
}
too_short = La nuova password è troppo corta.
too_short_for = { $count ->
    [one] La nuova password deve avere almeno { $count } carattere.
   *[other] La nuova password deve avere almeno { $count } caratteri.
}
kinds = La nuova password deve contenere caratteri di tre di questi tipi: lettere maiuscole, lettere minuscole, cifre, altri.
name = La nuova password non può contenere il Suo nome utente o una parte del Suo nome.
complexity = La nuova password è troppo facile da indovinare.
history = La nuova password non può essere una che ha già avuto.
history_of = La nuova password non può essere una delle Sue ultime { $count } password.
history_or_list = La nuova password è una che ha già avuto, oppure è troppo facile da indovinare.
history_or_list_of = La nuova password è una delle Sue ultime { $count } password, oppure è troppo facile da indovinare.
age_or_right = Non Le è consentito cambiare la password, o non ancora.
