/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Completion in shells.  `roux completion SHELL` prints a script that asks `roux
 * complete -- WORDS...` for what the last word may become, one candidate a line with a
 * tab and a description behind it.  Options are read off the verb's own help, so that
 * there is no second list of them; no candidates leave the word to the shell, which
 * knows files.
 */
#include "cli/cli.h"
#include "life/vms.h"
#include "machine/networks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HELP_MAX 16384u /* bytes of a verb's help */

static const char bash_script[] =
	"# roux: completion for bash: . <(roux completion bash)\n"
	"_roux() {\n"
	"\tlocal line\n"
	"\tCOMPREPLY=()\n"
	"\twhile IFS= read -r line; do\n"
	"\t\tCOMPREPLY+=(\"${line%%$'\\t'*}\")\n"
	"\tdone < <(roux complete -- \"${COMP_WORDS[@]:1:COMP_CWORD}\" 2>/dev/null)\n"
	"}\n"
	"complete -o default -F _roux roux\n";

static const char zsh_script[] =
	"#compdef roux\n"
	"# roux: completion for zsh: roux completion zsh > a folder of $fpath/_roux\n"
	"_roux() {\n"
	"\tlocal -a found\n"
	"\tlocal line\n"
	"\twhile IFS= read -r line; do\n"
	"\t\tfound+=(\"${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}\")\n"
	"\tdone < <(roux complete -- \"${(@)words[2,CURRENT]}\" 2>/dev/null)\n"
	"\tif (( $#found )); then\n"
	"\t\t_describe roux found\n"
	"\telse\n"
	"\t\t_files\n"
	"\tfi\n"
	"}\n"
	"compdef _roux roux\n";

static const char fish_script[] =
	"# roux: completion for fish: roux completion fish > ~/.config/fish/completions/roux.fish\n"
	"function __roux_complete\n"
	"\tset -l words (commandline -opc) (commandline -ct)\n"
	"\troux complete -- $words[2..-1] 2>/dev/null\n"
	"end\n"
	"complete -c roux -a '(__roux_complete)'\n";

int verb_completion(int argc, char **argv)
{
	static const struct {
		const char *name, *script;
	} shells[] = { { "bash", bash_script }, { "zsh", zsh_script }, { "fish", fish_script } };

	if (argc == 2 && strcmp(argv[1], "--help") == 0) {
		(void)puts("Usage: roux completion bash|zsh|fish\n\nPrints a script that completes roux commands; its first lines tell\n"
			   "where it belongs.");
		return 0;
	}
	for (size_t i = 0; argc == 2 && i < sizeof(shells) / sizeof(shells[0]); i++)
		if (strcmp(argv[1], shells[i].name) == 0) {
			(void)fputs(shells[i].script, stdout);
			return 0;
		}
	return complain(EXIT_ROUX, "completion needs a shell: bash, zsh or fish");
}

static bool begins_with(const char *text, const char *prefix)
{
	return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* @about goes on to the end of its line. */
static void offer(const char *text, const char *about, const char *prefix)
{
	if (begins_with(text, prefix))
		(void)printf("%s\t%.*s\n", text, (int)strcspn(about, "\n"), about);
}

static const struct verb *find_verb(const char *name)
{
	for (const struct verb *v = verbs; v->name; v++)
		if (v->summary && strcmp(v->name, name) == 0)
			return v;
	return NULL;
}

/* What the verb prints for --help, which goes to a file instead of standard output. */
static bool read_help(const struct verb *verb, char ret[HELP_MAX])
{
	char name[16], option[] = "--help", *argv[] = { name, option, NULL };
	int file = memfd_create("help", MFD_CLOEXEC), saved = dup(STDOUT_FILENO);
	ssize_t n = -1;

	(void)snprintf(name, sizeof(name), "%s", verb->name);
	(void)fflush(stdout);
	if (file >= 0 && saved >= 0 && dup2(file, STDOUT_FILENO) >= 0) {
		(void)verb->run(2, argv);
		(void)fflush(stdout);
		(void)dup2(saved, STDOUT_FILENO);
		n = pread(file, ret, HELP_MAX - 1, 0);
	}
	if (file >= 0)
		(void)close(file);
	if (saved >= 0)
		(void)close(saved);
	ret[n > 0 ? n : 0] = '\0';
	return n > 0;
}

/*
 * The option that a line of help explains: "  -n, --name WHAT   About it", with the last
 * part perhaps on @next.  False when it explains none.
 */
static bool option_of(char *line, const char *next, char **ret_option, const char **ret_about)
{
	char *end;

	if (!begins_with(line, "  -") && !begins_with(line, "      --"))
		return false;
	*ret_option = strstr(line, "--");
	if (!*ret_option)
		return false;
	end = *ret_option + strcspn(*ret_option, " ,");
	*ret_about = strstr(end, "  ");
	if (!*ret_about)
		*ret_about = begins_with(next, "        ") ? next : "";
	*ret_about += strspn(*ret_about, " ");
	*end = '\0';
	return true;
}

static void offer_options(const struct verb *verb, const char *prefix)
{
	char help[HELP_MAX], *option, *next;
	const char *about;

	if (!read_help(verb, help))
		return;
	for (char *line = help; *line; line = next) {
		next = strchrnul(line, '\n');
		if (*next)
			*next++ = '\0';
		if (option_of(line, next, &option, &about) && strcmp(option, "--help") != 0)
			offer(option, about, prefix);
	}
	offer("--help", "Tell more about it", prefix);
}

struct names {
	const struct vms *vms;
	const char *prefix;
};

static int offer_name(void *ctx, const char *id)
{
	const struct names *n = ctx;
	struct vm_record record;
	bool alive;

	record_init(&record);
	if (vms_load(n->vms, id, &record, &alive, NULL) == 0)
		offer(record.name, vm_status_name(record.state.status), n->prefix);
	record_finish(&record);
	return 0;
}

static void offer_networks(const char *prefix)
{
	struct network *all;
	int n = network_list(&all, NULL);

	for (int i = 0; i < n; i++)
		offer(all[i].name, all[i].subnet[0], prefix);
	if (n >= 0)
		free(all);
}

/* The values of options that have few. */
static bool offer_values(const char *option, const char *prefix)
{
	static const struct {
		const char *option, *values[5];
	} known[] = { { "--engine", { "auto", "kvm", "dbt" } },
		      { "--restart", { "no", "on-failure", "always", "unless-stopped" } },
		      { "--network", { "none", "user", "tap=" } } };

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (strcmp(known[i].option, option) != 0)
			continue;
		for (const char *const *v = known[i].values; *v; v++)
			offer(*v, "", prefix);
		if (strcmp(option, "--network") == 0)
			offer_networks(prefix);
		return true;
	}
	return false;
}

static bool takes_vms(const struct verb *verb)
{
	if (verb->group != VERB_LIFE)
		return strcmp(verb->name, "exec") == 0 || strcmp(verb->name, "logs") == 0;
	return strcmp(verb->name, "create") != 0 && strcmp(verb->name, "events") != 0;
}

int verb_complete(int argc, char **argv)
{
	const char *last = argc > 2 ? argv[argc - 1] : "";
	const struct verb *verb = argc > 3 ? find_verb(argv[2]) : NULL;
	struct vms vms;

	if (argc < 2 || strcmp(argv[1], "--") != 0)
		return complain(EXIT_ROUX, "complete is for the scripts of 'roux completion'");
	if (argc <= 3) {
		for (const struct verb *v = verbs; v->name; v++)
			if (v->summary)
				offer(v->name, v->summary, last);
		return 0;
	}
	if (!verb || (argc > 4 && offer_values(argv[argc - 2], last)))
		return 0;
	if (*last == '-')
		offer_options(verb, last);
	else if (verb->run == verb_network)
		offer_networks(last);
	else if (takes_vms(verb) && vms_open(&vms, NULL) == 0)
		(void)vms_each(&vms, offer_name, &(struct names){ &vms, last });
	return 0;
}
