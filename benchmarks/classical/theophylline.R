# Peers of benchmarks/classical/theophylline.py: R's nlme (and lme4 where installed) on the table theo_sd.
#
#     Rscript theophylline.R TABLE.csv REPEATS
#
# Prints JSON: seconds of each repeat of the fit alone, seconds to load the library, estimates and log-likelihood.
# Model: first-order absorption and elimination, log ke, log ka, log CL with independent random effects.

arguments <- commandArgs(trailingOnly = TRUE)
rows <- read.csv(arguments[1], comment.char = "#", na.strings = ".")
repeats <- as.integer(arguments[2])
doses <- rows[rows$EVID == 1, ]
data <- rows[rows$EVID == 0, ]
data$Dose <- doses$AMT[match(data$ID, doses$ID)]
data$ID <- factor(data$ID)
start <- c(lKe = log(0.08), lKa = log(1.5), lCl = log(2.7))

wall <- function(expression) unname(system.time(expression)["elapsed"])
as_list <- function(values) paste0("[", paste(format(values, digits = 8, trim = TRUE), collapse = ", "), "]")
report <- function(name, version, load, seconds, values, loglik) {
  sprintf('"%s": {"version": "%s", "load_s": %.3f, "seconds": %s, "fixed": %s, "log_likelihood": %.5f}',
          name, version, load, as_list(seconds), as_list(values), loglik)
}

results <- character()
last <- NULL
if (requireNamespace("nlme", quietly = TRUE)) {
  load <- wall(library(nlme))
  fit_nlme <- function() nlme(DV ~ SSfol(Dose, TIME, lKe, lKa, lCl), data = data, method = "ML",
                              fixed = lKe + lKa + lCl ~ 1, random = pdDiag(lKe + lKa + lCl ~ 1),
                              groups = ~ID, start = start)
  seconds <- replicate(repeats, wall(last <<- fit_nlme()))
  results <- c(results, report("nlme", as.character(packageVersion("nlme")), load, seconds,
                               fixef(last), as.numeric(logLik(last))))
}
if (requireNamespace("lme4", quietly = TRUE)) {
  load <- wall(library(lme4))
  fit_lme4 <- function() nlmer(DV ~ SSfol(Dose, TIME, lKe, lKa, lCl) ~ (lKe + lKa + lCl || ID),
                               data = data, start = start)
  attempt <- tryCatch({
    seconds <- replicate(repeats, wall(last <<- suppressWarnings(fit_lme4())))
    report("lme4", as.character(packageVersion("lme4")), load, seconds, lme4::fixef(last),
           as.numeric(logLik(last)))
  }, error = function(e) {
    sprintf('"lme4": {"version": "%s", "error": "%s"}', as.character(packageVersion("lme4")),
            gsub('["\n]', " ", conditionMessage(e)))
  })
  results <- c(results, attempt)
}
cat("{", paste(results, collapse = ",\n"), "}\n")
