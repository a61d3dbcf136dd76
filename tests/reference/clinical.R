# Calibration intercept and slope at a horizon by weighted logistic regression, the observed share by Kaplan-Meier, and
# net benefit by Kaplan-Meier among the treated (Vickers et al. 2008), as dcurves::dca computes it for survival data.
# Run here, after ipcw.R: Rscript clinical.R. Writes clinical_values.csv; the tests only read.
library(survival)

d <- read.csv("ipcw_patients.csv")
censoring <- survfit(Surv(time, 1 - event) ~ 1, d)
g <- stepfun(censoring$time, c(1, censoring$surv))
values <- NULL
for (at in c(2, 4)) {
  p <- 1 - exp(-exp(0.8 * d$risk) * 0.1 * at)
  case <- as.integer(d$event == 1 & d$time <= at)
  known <- case == 1 | d$time > at
  # untied times: G at an event's time is G just before it
  weight <- 1 / g(pmin(d$time, at)[known])
  y <- case[known]
  logit <- qlogis(p[known]^1.2)
  control <- glm.control(epsilon = 1e-14, maxit = 100)
  slope <- glm(y ~ logit, quasibinomial, weights = weight, control = control)
  intercept <- glm(y ~ offset(logit), quasibinomial, weights = weight, control = control)
  alive <- function(rows) summary(survfit(Surv(time, event) ~ 1, d[rows, ]), times = at)$surv
  thresholds <- c(0.1, 0.25, 0.4)
  nets <- sapply(thresholds, function(t) {
    treated <- p >= t
    s <- alive(treated)
    mean(treated) * ((1 - s) - s * t / (1 - t))
  })
  values <- rbind(values, data.frame(
    what = c("slope", "intercept", "observed", rep("net_benefit", 3)), time = at,
    threshold = c(NA, NA, NA, thresholds),
    value = c(coef(slope)[2], coef(intercept), 1 - alive(rep(TRUE, nrow(d))), nets)
  ))
}
write.csv(format(values, digits = 15, trim = TRUE), "clinical_values.csv", row.names = FALSE, quote = FALSE)
