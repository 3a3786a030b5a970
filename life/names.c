/* SPDX-License-Identifier: Apache-2.0 */
#include "life/names.h"

#include "base/checked.h"
#include "base/hex.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

static const char *const adjectives[] = {
	"agile", "amber", "ample", "apt", "bold", "brave", "breezy", "bright", "brisk", "calm", "candid", "clear",
	"clever", "cosy", "crisp", "daring", "deft", "eager", "early", "fair", "fast", "fine", "firm", "fluent",
	"fresh", "gentle", "glad", "golden", "grand", "happy", "hardy", "honest", "humble", "jolly", "keen", "kind",
	"light", "lively", "lucid", "lucky", "merry", "mild", "neat", "nimble", "noble", "patient", "plain", "polite",
	"prompt", "proud", "quick", "quiet", "rapid", "ready", "serene", "sharp", "sincere", "steady", "stout",
	"sunny", "swift", "tidy", "vivid", "warm", "wise", "witty", "young", "zesty",
};

static const char *const nouns[] = {
	"acorn", "alder", "anchor", "aspen", "badger", "beacon", "birch", "bison", "brook", "canyon", "cedar", "clover",
	"comet", "condor", "coral", "crane", "delta", "dolphin", "dune", "eagle", "elm", "ember", "falcon", "fern",
	"finch", "fjord", "forest", "fox", "glacier", "grove", "harbor", "hawk", "heron", "island", "juniper", "lagoon",
	"lantern", "larch", "lark", "lynx", "maple", "marten", "meadow", "meteor", "moss", "oak", "ocean", "orchid",
	"osprey", "otter", "owl", "pebble", "pine", "planet", "prairie", "raven", "reef", "river", "robin", "sparrow",
	"spruce", "summit", "swan", "thistle", "tundra", "valley", "walnut", "willow", "wren",
};

bool vm_id_valid(const char *text)
{
	return strspn(text, "0123456789abcdef") == VM_ID_SIZE - 1 && text[VM_ID_SIZE - 1] == '\0';
}

bool vm_name_valid(const char *text)
{
	static const char first[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
	size_t len = strlen(text);

	if (len == 0 || len >= VM_NAME_MAX || !strchr(first, text[0]))
		return false;
	for (size_t i = 0; i < len; i++)
		if (!strchr(first, text[i]) && !strchr("_.-", text[i]))
			return false;
	return true;
}

int vm_id_make(char ret_id[VM_ID_SIZE])
{
	uint8_t bytes[(VM_ID_SIZE - 1) / 2];

	if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
		return -EIO;
	hex_write(ret_id, bytes, sizeof(bytes));
	return 0;
}

void vm_name_make(unsigned attempt, char ret_name[VM_NAME_MAX])
{
	uint16_t r[3] = { 0 };
	int n;

	(void)getrandom(r, sizeof(r), 0);	/* names that are taken are tried again anyway */
	n = snprintf(ret_name, VM_NAME_MAX, "%s_%s", adjectives[r[0] % ARRAY_SIZE(adjectives)],
		     nouns[r[1] % ARRAY_SIZE(nouns)]);
	if (attempt > 2 && n > 0)
		(void)snprintf(ret_name + n, VM_NAME_MAX - (size_t)n, "%u", r[2]);
}
