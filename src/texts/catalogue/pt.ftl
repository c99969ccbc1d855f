# Portuguese of Brazil, in the form that software uses there (você).

logon_hours = Sua conta não pode entrar neste horário.
workstation = Sua conta não pode entrar a partir deste computador.
password_expired = Sua senha expirou e precisa ser alterada.
must_change = Sua senha precisa ser alterada antes de entrar.
disabled = Sua conta está desativada.
account_expired = Sua conta expirou.
locked_out = Sua conta está bloqueada. Tente novamente mais tarde ou fale com o administrador.
not_allowed = Sua conta não pode usar este serviço.
denied = Sua conta não pode usar este serviço.
password_refused = Sua nova senha não foi aceita.
change_forbidden = Você não tem permissão para alterar sua senha.
change_unknown = Não é certo que sua senha tenha sido alterada. Tente entrar com a nova.
session_denied = Você já entrou em outro lugar.
session_store = Não é possível registrar sua sessão. Tente novamente em instantes.
unavailable = O serviço de login não consegue acessar o Active Directory. Tente novamente em instantes.

expires_now = Sua senha expira em menos de uma hora.
expires_in_hours = { $count ->
    [one] Sua senha expira em { $count } hora.
   *[other] Sua senha expira em { $count } horas.
}
expires_in_days = { $count ->
    [one] Sua senha expira em { $count } dia.
   *[other] Sua senha expira em { $count } dias.
}

new_same = Sua nova senha é igual à atual.
new_empty = Sua nova senha está vazia.
new_too_long = Sua nova senha é longa demais.
new_characters = Sua nova senha contém caracteres que nenhuma senha pode ter.

too_young = Sua senha foi alterada há pouco tempo; ainda não pode ser alterada de novo.
too_young_days = { $count ->
    [one] Sua senha foi alterada há menos de { $count } dia; ainda não pode ser alterada de novo.
   *[other] Sua senha foi alterada há menos de { $count } dias; ainda não pode ser alterada de novo.
}
too_young_hours = { $count ->
    [one] Sua senha foi alterada há menos de { $count } hora; ainda não pode ser alterada de novo.
   *[other] Sua senha foi alterada há menos de { $count } horas; ainda não pode ser alterada de novo.
}
too_young_minutes = { $count ->
    [one] Sua senha foi alterada há menos de { $count } minuto; ainda não pode ser alterada de novo.
   *[other] Sua senha foi alterada há menos de { $count } minutos; ainda não pode ser alterada de novo.
}
too_young_seconds = { $count ->
    [one] Sua senha foi alterada há menos de { $count } segundo; ainda não pode ser alterada de novo.
   *[other] Sua senha foi alterada há menos de { $count } segundos; ainda não pode ser alterada de novo.
}
too_short = Sua nova senha é curta demais.
too_short_for = { $count ->
    [one] Sua nova senha deve ter pelo menos { $count } caractere.
   *[other] Sua nova senha deve ter pelo menos { $count } caracteres.
}
kinds = Sua nova senha deve ter caracteres de três destes tipos: letras maiúsculas, letras minúsculas, dígitos, outros.
name = Sua nova senha não pode conter seu nome de usuário nem uma parte do seu nome.
complexity = Sua nova senha é fácil demais de adivinhar.
history = Sua nova senha não pode ser uma que você já teve.
history_of = Sua nova senha não pode ser uma das suas últimas { $count } senhas.
history_or_list = Sua nova senha é uma que você já teve, ou é fácil demais de adivinhar.
history_or_list_of = Sua nova senha é uma das suas últimas { $count } senhas, ou é fácil demais de adivinhar.
age_or_right = Você não tem permissão para alterar sua senha, ou ainda não.
