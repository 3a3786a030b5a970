/* SPDX-License-Identifier: Apache-2.0 */
/* roux login and logout. */
#include "cli/cli.h"
#include "cli/image.h"

#include "oci/registry.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

static const char login_help[] =
	"Usage: roux login [OPTIONS] [HOST[:PORT]]\n"
	"\n"
	"Checks a user and password with a registry (docker.io when none is named) and keeps\n"
	"them in docker's configuration file, ~/.docker/config.json or $DOCKER_CONFIG/config.json.\n"
	"\n"
	"Options:\n"
	"  -u, --username NAME   User\n"
	"  -p, --password TEXT   Password; others may see it in the list of processes\n"
	"      --password-stdin  Read the password from standard input\n"
	"      --insecure        Allow plain HTTP and certificates that cannot be checked\n"
	"      --help            Print this text\n";

static const char logout_help[] =
	"Usage: roux logout [HOST[:PORT]]\n"
	"\n"
	"Forgets the user of a registry (docker.io when none is named).\n";

static bool check_host(const char *host)
{
	char name[REFERENCE_PART_MAX + 8];
	struct reference ref;

	if (snprintf(name, sizeof(name), "%s/a", host) < (int)sizeof(name) && reference_parse(name, &ref, NULL) == 0 &&
	    strcmp(ref.host, host) == 0)
		return true;
	(void)complain(EXIT_FAILED, "'%s' is not a registry: write HOST or HOST:PORT", host);
	return false;
}

/* One line without its end.  False when there is none or it is too long. */
static bool read_line(char *buf, size_t size)
{
	size_t n;

	if (!fgets(buf, (int)size, stdin))
		return false;
	n = strlen(buf);
	if (n == 0 || buf[n - 1] != '\n')
		return feof(stdin) && n > 0;
	buf[n - 1] = '\0';
	if (n > 1 && buf[n - 2] == '\r')
		buf[n - 2] = '\0';
	return true;
}

static bool ask(const char *what, bool hidden, char *buf, size_t size)
{
	struct termios old, quiet;
	bool ok;

	if (!isatty(STDIN_FILENO))
		return false;
	(void)fprintf(stderr, "%s: ", what);
	if (hidden && tcgetattr(STDIN_FILENO, &old) == 0) {
		quiet = old;
		quiet.c_lflag &= ~(tcflag_t)ECHO;
		(void)tcsetattr(STDIN_FILENO, TCSANOW, &quiet);
	}
	ok = read_line(buf, size);
	if (hidden) {
		(void)tcsetattr(STDIN_FILENO, TCSANOW, &old);
		(void)fputc('\n', stderr);
	}
	return ok;
}

static int log_in(const char *host, bool insecure, const struct auth_login *login)
{
	const struct registry_options options = { .insecure = insecure, .cancel = &image_stop };
	struct registry *registry = NULL;
	struct err err = { 0 };
	char path[4096];
	int r;

	image_catch_signals();
	r = registry_open(host, &options, login, &registry, &err);
	if (r == 0)
		r = registry_check_login(registry, &err);
	registry_close(registry);
	if (r == 0)
		r = auth_store(host, login, &err);
	if (r < 0)
		return image_failed(&err);
	if (auth_config_path(path, sizeof(path), NULL) == 0)
		(void)fprintf(stderr, "The password is kept, not encrypted, in %s\n", path);
	(void)puts("Login Succeeded");
	return 0;
}

int verb_login(int argc, char **argv)
{
	enum { OPT_STDIN = 256, OPT_INSECURE, OPT_HELP };
	static const struct option options[] = {
		{ "username", required_argument, NULL, 'u' }, { "password", required_argument, NULL, 'p' },
		{ "password-stdin", no_argument, NULL, OPT_STDIN }, { "insecure", no_argument, NULL, OPT_INSECURE },
		{ "help", no_argument, NULL, OPT_HELP }, { NULL, 0, NULL, 0 } };
	static struct auth_login login;
	bool from_stdin = false, insecure = false, have_secret = false;
	const char *host;
	int opt;

	optind = 0;
	while ((opt = getopt_long(argc, argv, "u:p:", options, NULL)) != -1) {
		if (opt == OPT_HELP)
			return verb_help(login_help);
		if (opt == 'u' && strlen(optarg) < sizeof(login.user)) {
			(void)snprintf(login.user, sizeof(login.user), "%s", optarg);
		} else if (opt == 'p' && strlen(optarg) < sizeof(login.secret)) {
			(void)snprintf(login.secret, sizeof(login.secret), "%s", optarg);
			have_secret = true;
		} else if (opt == OPT_STDIN) {
			from_stdin = true;
		} else if (opt == OPT_INSECURE) {
			insecure = true;
		} else {
			return verb_misused("login", "that is not one of its options, or too long");
		}
	}
	if (optind + 1 < argc)
		return verb_misused("login", "login takes one registry at most");
	host = optind < argc ? argv[optind] : "docker.io";
	if (!check_host(host))
		return EXIT_FAILED;
	if (from_stdin && !login.user[0])
		return verb_misused("login", "--password-stdin needs --username");
	if (!login.user[0] && !ask("Username", false, login.user, sizeof(login.user)))
		return complain(EXIT_FAILED, "login needs --username and --password-stdin when there is no terminal");
	if (from_stdin ? !read_line(login.secret, sizeof(login.secret))
		       : !have_secret && !ask("Password", true, login.secret, sizeof(login.secret)))
		return complain(EXIT_FAILED, "there was no password to read: use --password-stdin");
	if (strchr(login.user, ':'))
		return complain(EXIT_FAILED, "a user's name cannot have a ':'");
	return log_in(host, insecure, &login);
}

int verb_logout(int argc, char **argv)
{
	const char *host = argc > 1 ? argv[1] : "docker.io";
	struct err err = { 0 };
	int r;

	if (strcmp(host, "--help") == 0)
		return verb_help(logout_help);
	if (argc > 2 || host[0] == '-')
		return verb_misused("logout", "logout takes one registry at most");
	if (!check_host(host))
		return EXIT_FAILED;
	r = auth_store(host, NULL, &err);
	if (r == -ENOENT) {
		(void)printf("Not logged in to %s\n", host);
		return 0;
	}
	if (r < 0)
		return image_failed(&err);
	(void)printf("Removing login credentials for %s\n", host);
	return 0;
}
