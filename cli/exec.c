/* SPDX-License-Identifier: Apache-2.0 */
/* roux exec: another command in a running VM. */
#include "cli/attached.h"
#include "cli/cli.h"
#include "cli/pick.h"

#include <cjson/cJSON.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char help[] =
	"Usage: roux exec [OPTIONS] VM COMMAND [ARG...]\n\n"
	"Runs COMMAND in a running VM and exits with its status.\n\n"
	"  -i, --interactive         Pass standard input to the command\n"
	"  -t, --tty                 Give the command a terminal\n"
	"  -d, --detach              Leave the command running in the background\n"
	"  -e, --env NAME[=VALUE]    Set an environment variable\n"
	"  -w, --workdir DIR         Working directory of the command\n"
	"  -u, --user USER[:GROUP]   User, by name or number\n";

static const struct option options[] = { { "interactive", no_argument, NULL, 'i' },
					 { "tty", no_argument, NULL, 't' },
					 { "detach", no_argument, NULL, 'd' },
					 { "env", required_argument, NULL, 'e' },
					 { "workdir", required_argument, NULL, 'w' },
					 { "user", required_argument, NULL, 'u' },
					 { "help", no_argument, NULL, PICK_HELP },
					 { NULL, 0, NULL, 0 } };

static int add_env(cJSON *env, const char *arg)
{
	char *pair;
	int status = take_env(arg, &pair);

	if (pair)
		(void)cJSON_AddItemToArray(env, cJSON_CreateString(pair));
	free(pair);
	return status;
}

static int exec_in(const struct vms *vms, const char *what, const cJSON *body, const struct attached *how)
{
	struct vm_record record;
	struct session session;
	int status = pick_running(vms, what, &record);

	if (status == 0) {
		attached_signals();
		status = pick_upgrade(vms, &record, "/v1/exec", body, EXIT_ROUX, &session);
	}
	if (status == 0)
		status = attached_run(&session, how);
	record_finish(&record);
	return status;
}

int verb_exec(int argc, char **argv)
{
	cJSON *body = cJSON_CreateObject(), *env = cJSON_AddArrayToObject(body, "Env"), *cmd;
	struct attached how = { .output = true, .signals = true,
				.lost = "the VM ended before the command did; 'roux ps -a' tells more" };
	uint16_t rows, cols;
	struct vms vms;
	int c, status = 0;

	optind = 0;
	while (status == 0 && (c = getopt_long(argc, argv, "+itde:w:u:", options, NULL)) != -1) {
		switch (c) {
		case 'i': how.input = true; break;
		case 't': how.tty = true; break;
		case 'd': how.until_started = true; break;
		case 'e': status = add_env(env, optarg); break;
		case 'w': (void)cJSON_AddStringToObject(body, "WorkingDir", optarg); break;
		case 'u': (void)cJSON_AddStringToObject(body, "User", optarg); break;
		default:
			cJSON_Delete(body);
			return pick_usage("exec", help, c);
		}
	}
	if (status == 0 && argc - optind < 2)
		status = complain(EXIT_ROUX, "exec needs a VM and a command; see 'roux exec --help'");
	if (status == 0 && how.input && how.tty && !isatty(STDIN_FILENO))
		status = complain(EXIT_ROUX, "-t with -i needs a terminal as standard input; leave out -t");
	if (how.until_started)
		how.input = how.output = how.tty = false;
	if (how.tty && terminal_size(&rows, &cols)) {
		(void)cJSON_AddNumberToObject(body, "Rows", rows);
		(void)cJSON_AddNumberToObject(body, "Cols", cols);
	}
	(void)cJSON_AddBoolToObject(body, "Tty", how.tty);
	(void)cJSON_AddBoolToObject(body, "AttachStdin", how.input);
	(void)cJSON_AddBoolToObject(body, "Detach", how.until_started);
	cmd = cJSON_AddArrayToObject(body, "Cmd");
	for (int i = optind + 1; status == 0 && i < argc; i++)
		(void)cJSON_AddItemToArray(cmd, cJSON_CreateString(argv[i]));
	if (status == 0)
		status = pick_open(&vms);
	if (status == 0)
		status = exec_in(&vms, argv[optind], body, &how);
	cJSON_Delete(body);
	return status;
}
