/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who we are to a registry: what it asks for (WWW-Authenticate, RFC 9110 11.6.1
 * and the distribution project's token authentication) and what docker's
 * configuration file says ($DOCKER_CONFIG/config.json, ~/.docker/config.json).
 */
#ifndef OCI_AUTH_H
#define OCI_AUTH_H

#include <stdbool.h>
#include <stddef.h>

struct err;

enum auth_scheme { AUTH_BASIC, AUTH_BEARER };

struct auth_challenge {
	enum auth_scheme scheme;
	char realm[1024];	/* URL of the token service, for AUTH_BEARER */
	char service[256];	/* "" when not given */
	char scope[512];	/* "" when not given */
};

/* Parses the value of one WWW-Authenticate header.  0, or -EBADMSG. */
int auth_parse_challenge(const char *text, struct auth_challenge *ret_challenge, struct err *err);

struct auth_login {
	char user[256];	/* "": none */
	char secret[4096];	/* password, or a token when user is "<token>" */
	char identity[4096];	/* identity token for the token service, or "" */
};

/*
 * What docker's configuration @json says about @host: 0, and an empty login when
 * it says nothing.  @ret_helper: name of the program that knows ("": none; it is
 * asked by auth_find()).  -EBADMSG when it is no such configuration.
 */
int auth_parse_config(const char *json, size_t len, const char *host, struct auth_login *ret_login,
		      char ret_helper[128], struct err *err);

/* The login for @host from the configuration file and its helpers; empty when there is none. */
int auth_find(const char *host, struct auth_login *ret_login, struct err *err);

/*
 * Records, or with @login NULL forgets, the login for @host in the configuration
 * file (mode 0600, other content kept) or with its helper.  0, -ENOENT when there
 * was nothing to forget, or another negative errno.
 */
int auth_store(const char *host, const struct auth_login *login, struct err *err);

/* Where auth_store() writes, for people.  0 or a negative errno. */
int auth_config_path(char *ret_path, size_t size, struct err *err);

/* "Basic ..." of user and secret in fresh memory; NULL without memory. */
char *auth_basic(const struct auth_login *login);

#endif /* OCI_AUTH_H */
